"""What a site may disclose. Policy and ledger join `disclosure` as they are built."""
