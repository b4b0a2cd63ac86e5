"""The command line of imgdata: arguments -> one library call -> text."""
