"""Generated from protos/ by .ci/protos; never edited."""
