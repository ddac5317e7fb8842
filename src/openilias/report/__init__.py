"""The report room: tables, and the static HTML folder that explains a result."""
