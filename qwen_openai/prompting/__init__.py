"""Job to token ids: chat templates in a sandbox, user text that never becomes a control token."""
