"""The numbers of the ILIAS paper as data, with errata. Imports nothing; imported by ``report``."""
