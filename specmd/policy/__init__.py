"""What a policy sees (`event`), what it must answer (`hooks`), and where it is found (`registry`)."""
