"""A shop of five services and a read view that talk only through events. See README.md beside this file."""
