"""The engine that hands jobs on to another server that speaks OpenAI's API.

`client` has the connection, `request` makes a job a body, `answer` makes what comes back events,
`failures` says what went wrong and whose fault it is, `kinds` what servers do differently.
"""
