"""A file a family of models: how images go in and masks come out; imports `modules`, `decoding`,
`tracking`, the models' interface and `ops`.
"""
