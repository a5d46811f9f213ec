"""Settings, addresses, and the validation of arguments."""
