"""What a site may disclose. Policy, ledger and the release gate join `disclosure` as they are built."""
