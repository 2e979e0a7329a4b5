"""A scripted HTTP server on this machine, for what calls endpoints."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers each POST by the next of `answers`; the last one stays.

    An answer is (code, content) or (code, content, headers), with bytes or what becomes JSON as
    content, or a function of the request's body that gives such, or None to hang up.
    """

    def __init__(self, answers, path="/score"):
        self.answers, self.bodies, self.headers = list(answers), [], []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers))
                    more = len(server.answers) > 1
                    answer = server.answers.pop(0) if more else server.answers[0]
                answer = answer(body) if callable(answer) else answer
                if answer is None:
                    return
                code, content, *headers = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                lines = {"Content-Length": str(len(data)), **(headers[0] if headers else {})}
                for name, value in lines.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}{path}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
