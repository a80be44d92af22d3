CREATE TABLE `activation_tests` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text,
	`model_id` text NOT NULL,
	`test` text NOT NULL,
	`created_at` integer NOT NULL,
	`title` text,
	`visibility` text DEFAULT 'unlisted' NOT NULL,
	`expires_at` integer,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `activation_tests_user` ON `activation_tests` (`user_id`,`created_at`);--> statement-breakpoint
CREATE INDEX `activation_tests_public` ON `activation_tests` (`visibility`,`created_at`);--> statement-breakpoint
CREATE TABLE `activations` (
	`id` text PRIMARY KEY NOT NULL,
	`model_id` text NOT NULL,
	`source` text NOT NULL,
	`index` integer NOT NULL,
	`user_id` text NOT NULL,
	`example` text NOT NULL,
	`max_value` real NOT NULL,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `activations_feature` ON `activations` (`model_id`,`source`,`index`);--> statement-breakpoint
CREATE TABLE `features` (
	`model_id` text NOT NULL,
	`source` text NOT NULL,
	`index` integer NOT NULL,
	`user_id` text NOT NULL,
	`density` real,
	`max_activation` real NOT NULL,
	`found` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`model_id`, `source`, `index`),
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `label_syncs` (
	`model_id` text NOT NULL,
	`source` text NOT NULL,
	`revision` text NOT NULL,
	PRIMARY KEY(`model_id`, `source`)
);
--> statement-breakpoint
CREATE TABLE `label_votes` (
	`label_id` text NOT NULL,
	`user_id` text NOT NULL,
	`vote` integer NOT NULL,
	PRIMARY KEY(`label_id`, `user_id`)
);
--> statement-breakpoint
CREATE TABLE `labels` (
	`row` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`id` text NOT NULL,
	`model_id` text NOT NULL,
	`source` text NOT NULL,
	`index` integer NOT NULL,
	`description` text NOT NULL,
	`user_id` text,
	`method` text NOT NULL,
	`unlisted` integer NOT NULL,
	`votes` integer DEFAULT 0 NOT NULL,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `labels_id_unique` ON `labels` (`id`);--> statement-breakpoint
CREATE INDEX `labels_feature` ON `labels` (`model_id`,`source`,`index`);--> statement-breakpoint
CREATE TABLE `list_comments` (
	`id` text PRIMARY KEY NOT NULL,
	`list_id` text NOT NULL,
	`user_id` text NOT NULL,
	`text` text NOT NULL,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`list_id`) REFERENCES `lists`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `list_comments_list` ON `list_comments` (`list_id`,`created_at`);--> statement-breakpoint
CREATE TABLE `list_items` (
	`list_id` text NOT NULL,
	`model_id` text NOT NULL,
	`source` text NOT NULL,
	`index` integer NOT NULL,
	`user_id` text NOT NULL,
	`description` text NOT NULL,
	`strength` real,
	`method` text,
	`added_at` integer NOT NULL,
	`place` integer NOT NULL,
	PRIMARY KEY(`list_id`, `model_id`, `source`, `index`),
	FOREIGN KEY (`list_id`) REFERENCES `lists`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `lists` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`name` text NOT NULL,
	`description` text NOT NULL,
	`default_test_text` text,
	`visibility` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `lists_user` ON `lists` (`user_id`,`created_at`);--> statement-breakpoint
CREATE TABLE `models` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`display_name` text NOT NULL,
	`layers` integer NOT NULL,
	`website` text,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `source_sets` (
	`model_id` text NOT NULL,
	`name` text NOT NULL,
	`user_id` text NOT NULL,
	`description` text NOT NULL,
	`url` text,
	`layers` integer NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`model_id`, `name`),
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
ALTER TABLE `steers` ADD `title` text;--> statement-breakpoint
ALTER TABLE `steers` ADD `visibility` text DEFAULT 'unlisted' NOT NULL;--> statement-breakpoint
ALTER TABLE `steers` ADD `expires_at` integer;--> statement-breakpoint
CREATE INDEX `steers_public` ON `steers` (`visibility`,`created_at`);--> statement-breakpoint
ALTER TABLE `vectors` ADD `description` text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE `vectors` ADD `version` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `vectors` ADD `updated_at` integer;