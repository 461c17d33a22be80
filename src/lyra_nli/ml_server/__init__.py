"""The ML server: answers NLI pairs over HTTP with the adapter version that is active."""
