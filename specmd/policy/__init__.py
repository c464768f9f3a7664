"""What a policy sees (`event`), must answer (`hooks`), and how it is found (`registry`)."""
