"""Agents: who answers, in which session, run by run; transcripts that outlive the process."""
