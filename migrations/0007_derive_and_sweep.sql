CREATE TABLE `job_inputs` (
	`job_id` text NOT NULL,
	`number` integer NOT NULL,
	`part` text NOT NULL,
	PRIMARY KEY(`job_id`, `number`),
	FOREIGN KEY (`job_id`) REFERENCES `jobs`(`id`) ON UPDATE no action ON DELETE no action
);
