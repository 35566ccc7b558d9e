"""From prompts to candidate masks, plainly and fast; imports `modules`, the models' interface and
`ops`.
"""
