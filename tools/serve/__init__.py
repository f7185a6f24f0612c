"""Around the service: load.py, a unit for systemd, a Dockerfile."""
