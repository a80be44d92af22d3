-- The words of `labels` for full-text search; its rowid is labels.row. Porter stems: "dogs" finds "dog". Prefixes serve search as you type.
CREATE VIRTUAL TABLE `labels_fts` USING fts5(description, tokenize = 'porter unicode61 remove_diacritics 2', prefix = '2 3');
