"""The tasks: what a model is trained on and how its answers are scored, with one module per task.

`facts` lists the tasks and their fixed properties. `contract` defines the interface of a task and loads a task by name.
"""
