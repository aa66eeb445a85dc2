"""Where programs import `S3Credentials` from."""
