"""The release gate: may synthetic patients leave the hospital? docs/release.md says it for the officer."""
