CREATE TABLE `vectors` (
	`index` integer PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`model_id` text NOT NULL,
	`layer` integer NOT NULL,
	`hook` text NOT NULL,
	`label` text NOT NULL,
	`default_strength` real NOT NULL,
	`visibility` text NOT NULL,
	`values` text NOT NULL,
	`created_at` integer NOT NULL,
	`deleted_at` integer,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `vectors_user` ON `vectors` (`user_id`,`created_at`);