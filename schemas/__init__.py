"""Contracts: messages, topics, codecs and tables. Imports nothing of ours."""
