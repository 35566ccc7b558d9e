"""A pool of processes without the processes, for tests of what is handed to them and given back."""

import pickle
from concurrent.futures import Future


class PoolHere:
    """Makes the calls in this process; they and their results are pickled all the same."""

    def __init__(self, workers, context):
        assert workers >= 1
        assert context.get_start_method() == "spawn"
        self.has_ended = False

    def submit(self, *call):
        assert not self.has_ended
        function, *arguments = pickle.loads(pickle.dumps(call))
        future = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        except Exception as error:  # for who asks for the result, as a process's would be
            future.set_exception(pickle.loads(pickle.dumps(error)))
        return future

    def shutdown(self):
        self.has_ended = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
