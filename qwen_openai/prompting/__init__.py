"""Job to token ids: chat templates in a sandbox, user text that can never become a control token."""
