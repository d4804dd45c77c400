"""The steps from raw interactions to encoded parts, each of them partition by partition."""
