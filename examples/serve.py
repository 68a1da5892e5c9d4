"""Serve a student over HTTP: a `Predictor` answers a row or a few at a time, from any thread, with the bits of `Student.predict`.

Weights in int8 take a quarter of the memory, and for a few rows reading the weights is what takes the time.
"""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import pymimic as pm

student = pm.Student(inputs=64, hidden=4096, outputs=10, rank=32)  # in earnest: pm.Student.load("student.safetensors")
predictor = pm.Predictor(student)


class Handler(BaseHTTPRequestHandler):
    """POST a JSON list of rows, get a JSON list of logits."""

    def do_POST(self):
        rows = np.array(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), np.float32)
        answer = json.dumps(predictor.predict(rows).tolist()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()

x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}", json.dumps(x.tolist()).encode())
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
    served = np.array(json.load(response), np.float32)
server.shutdown()
print("the served logits equal student.predict:", np.array_equal(served, student.predict(x)))

small = pm.Predictor(student, "int8")
error = np.abs(small.predict(x) - served).max() / np.abs(served).max()
print(f"int8: {small.nbytes / predictor.nbytes:.2f} of the bytes, largest error {error:.4f} of the largest logit")
