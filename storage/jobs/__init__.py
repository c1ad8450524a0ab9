"""Jobs in Postgres: tables, the moves of the engine, the questions of the sweep, and what clients ask and order."""
