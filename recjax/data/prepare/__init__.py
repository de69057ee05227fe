"""Raw logs to datasets: build, filter, fingerprint, audit; the Beam pipeline."""
