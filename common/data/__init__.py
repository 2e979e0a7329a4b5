"""Data: from users' files to records, from records to token ids; the embedded ad domain."""
