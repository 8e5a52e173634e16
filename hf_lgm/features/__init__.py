"""Images to vectors: extracted once, cached, streamed; rows that stand for their class."""
