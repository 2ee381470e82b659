"""Messages to people about what became of a release; whether they arrive changes nothing."""
