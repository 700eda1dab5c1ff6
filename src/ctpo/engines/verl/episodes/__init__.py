"""Episodes under verl: what the agent loop, the tool and the reward are made of."""
