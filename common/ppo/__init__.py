"""PPO with a KL penalty (paper §3.3): the equations as pure functions, experience, the trainer.

Layout of a rollout, everywhere: prompts are left-padded to `[batch, prompt]`, responses
right-padded to `[batch, response]`; state t is (prompt, response[:t]) and action t is response
token t. `logprobs`, `values`, `rewards`, `advantages`, `returns` and the response mask are all
`[batch, response]`; the mask includes the end token and nothing after it.
"""
