"""The package of `s3_utils.s3_utils`, as in Run:ai's streamer."""
