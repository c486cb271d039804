"""What every room stands on: settings, database, errors, ids, clock, events, reconcile."""
