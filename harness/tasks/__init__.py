"""What is trained on and scored, one module per task.

`facts` lists the tasks and what is fixed about each of them. `contract` says what a task does and loads one.
"""
