"""Distractors from tables of URLs: fetched politely, stored in shards, a row in a table for each that was asked for."""
