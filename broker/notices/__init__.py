"""Telling people what waits for them or happened to them: outbox, words, choices, mail, webhooks, chat."""
