"""What a site may disclose: its policy, approvals, ledger and the one way out; which counts may be printed."""
