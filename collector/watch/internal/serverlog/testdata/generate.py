#!/usr/bin/python3
"""Records what the servers of this machine log while their workers live and die.

Each NAME.log is all that one server has written to its stdout and stderr, with the
process ids that it had. Run as root, in this directory; it needs Debian's gunicorn,
uwsgi-core with its python3 and http plugins, unicorn, puma, php-fpm and libfcgi-bin.
"""

import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))

PYTHON_APP = """
import os, signal, sys, time
def application(environ, start_response):
    what = environ['PATH_INFO']
    if what == '/hang':
        time.sleep(100)
    if what == '/segv':
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == '/exit':
        os._exit(7)
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'well\\n']
"""

RUBY_APP = """
run lambda { |env|
  case env['PATH_INFO']
  when '/hang' then sleep 100
  when '/exit' then exit!(7)
  end
  [200, {'Content-Type' => 'text/plain'}, ["well\\n"]]
}
"""

PHP_APP = """<?php
switch ($_SERVER['QUERY_STRING']) {
case 'hang': sleep(100); break;
case 'slow': usleep(1500000); break;
case 'segv': posix_kill(posix_getpid(), 11); sleep(1); break;
}
echo "well";
"""


class Server:
    """One server, until the end of a with statement."""

    def __init__(self, name, words, files, stop=signal.SIGTERM, append=False, most=1000):
        self.dir = tempfile.mkdtemp()
        os.chmod(self.dir, 0o755)
        self.stop, self.most = stop, most  # lines that are kept
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        for file, text in files.items():
            with open(os.path.join(self.dir, file), "w") as f:
                f.write(text.replace("PORT", str(self.port)).replace("DIR", self.dir))
        self.path = os.path.join(HERE, name + ".log")
        log = open(self.path, "ab")  # php-fpm opens it anew by /proc/self/fd/2
        if not append:
            log.truncate(0)
        self.process = subprocess.Popen(
            [w.replace("PORT", str(self.port)).replace("DIR", self.dir) for w in words],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": self.dir, "LANG": "C.UTF-8"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(self.stop)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            sys.exit(f"{self.path}: it does not stop")
        with open(self.path, "r+b") as f:
            lines = f.readlines()
            f.seek(sum(map(len, lines[:self.most])))
            f.truncate()
        print(self.path, self.process.returncode)

    def ready(self):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                time.sleep(1)
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{self.path}: nobody listens")

    def ask(self, path, times=1):
        for _ in range(times):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=12).read()
            except OSError:
                pass
        time.sleep(1.5)

    def send(self, what, wait=2.0):
        self.process.send_signal(what)
        time.sleep(wait)

    def workers(self):
        out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in out.stdout.split()]

    def kill(self, what, wait=2.0, which=-1):
        os.kill(self.workers()[which], what)
        time.sleep(wait)


def gunicorn():
    words = ["gunicorn", "--bind=127.0.0.1:PORT", "--workers=2", "app:application"]
    files = {"app.py": PYTHON_APP}
    with Server("gunicorn-20.1.0", words + ["--timeout=2"], files) as s:
        s.ready()
        s.ask("/hang")
        s.kill(signal.SIGKILL)
        s.ask("/segv")
        s.ask("/exit")
        for what in signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGWINCH:
            s.send(what)
    with Server("gunicorn-20.1.0", words + ["--max-requests=2", "--access-logfile=-"], files, signal.SIGINT, append=True) as s:
        s.ready()
        s.ask("/", 6)
    with Server("gunicorn-20.1.0-boot", words, {"app.py": "raise ValueError('no database')\n"}):
        time.sleep(2)
    with Server("gunicorn-20.1.0-boot", words, {}, append=True):
        time.sleep(2)


def uwsgi():
    words = ["uwsgi-core", "--plugin=python3", "--master", "--processes=2", "--harakiri=1", "--max-requests=2",
             "--min-worker-lifetime=1", "--wsgi-file=DIR/app.py", "--master-fifo=DIR/fifo"]
    files = {"app.py": PYTHON_APP}
    with Server("uwsgi-2.0.21", words + ["--http-socket=127.0.0.1:PORT"], files, signal.SIGINT) as s:
        s.ready()
        s.ask("/hang")
        s.kill(signal.SIGKILL)
        s.ask("/segv")
        s.ask("/exit")
        s.ask("/", 12)
        s.send(signal.SIGHUP, 4)
        for order in "cr-+":
            with open(os.path.join(s.dir, "fifo"), "w") as f:
                f.write(order)
            time.sleep(5)
    with Server("uwsgi-2.0.21-http", [
            "uwsgi-core", "--plugin=python3,http", "--http=127.0.0.1:PORT", "--master", "--processes=2", "--cheaper=1",
            "--cheaper-initial=1", "--idle=1", "--mule", "--wsgi-file=DIR/app.py", "--spooler=DIR", "--die-on-term"], files) as s:
        s.ready()
        time.sleep(3)
        s.ask("/")
    with Server("uwsgi-2.0.21-boot", words + ["--need-app", "--http-socket=127.0.0.1:PORT"], {"app.py": "raise ValueError('no database')\n"}, signal.SIGINT):
        time.sleep(2)
    with Server("uwsgi-2.0.21-boot", words + ["--need-app", "--lazy-apps", "--http-socket=127.0.0.1:PORT"], {"app.py": "raise ValueError('no database')\n"},
                signal.SIGINT, append=True):
        time.sleep(3)


def unicorn():
    words = ["unicorn", "--no-default-middleware", "--config-file=DIR/unicorn.rb", "DIR/config.ru"]
    config = "listen '127.0.0.1:PORT'\nworker_processes 2\ntimeout 3\n"
    with Server("unicorn-6.0.0", words, {"config.ru": RUBY_APP, "unicorn.rb": config}, signal.SIGQUIT) as s:
        s.ready()
        s.ask("/hang")
        s.kill(signal.SIGKILL)
        s.ask("/exit")
        for what in signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGWINCH:
            s.send(what)
    with Server("unicorn-6.0.0-boot", words, {"config.ru": "raise 'no database'\n", "unicorn.rb": config}, signal.SIGQUIT, most=60):
        time.sleep(0.3)  # it starts them again at once


def puma():
    words = ["puma", "-C", "DIR/puma.rb", "DIR/config.ru"]
    config = "bind 'tcp://127.0.0.1:PORT'\nworkers 2\nthreads 1, 1\nworker_check_interval 2\nworker_timeout 4\nworker_boot_timeout 4\n"
    with Server("puma-5.6.5", words, {"config.ru": RUBY_APP, "puma.rb": config}) as s:
        s.ready()
        s.kill(signal.SIGSTOP, 10)
        s.kill(signal.SIGKILL, 4)
        s.ask("/exit")
        for what in signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2:
            s.send(what, 6)
    with Server("puma-5.6.5-boot", words, {"config.ru": "raise 'no database'\n", "puma.rb": config}, most=60):
        time.sleep(8)


def php_fpm():
    nobody = pwd.getpwnam("www-data").pw_name
    config = f"""[global]
error_log = /proc/self/fd/2
log_level = LEVEL
process_control_timeout = 2
[www]
user = {nobody}
listen = 127.0.0.1:PORT
pm = static
pm.max_children = 2
pm.max_requests = 3
request_terminate_timeout = 3
request_slowlog_timeout = 1
slowlog = DIR/slow.log
catch_workers_output = yes
"""
    words = ["php-fpm8.2", "-F", "-y", "DIR/php-fpm.conf"]
    def ask(s, query, times=1):
        for _ in range(times):
            try:
                subprocess.run(["cgi-fcgi", "-bind", "-connect", f"127.0.0.1:{s.port}"], capture_output=True, timeout=12,
                               env={"PATH": "/usr/bin", "REQUEST_METHOD": "GET", "QUERY_STRING": query, "SCRIPT_FILENAME": s.dir + "/app.php"})
            except subprocess.TimeoutExpired:
                pass
        time.sleep(1.5)
    for name, level in ("php-fpm-8.2", "notice"), ("php-fpm-8.2-debug", "debug"):
        files = {"app.php": PHP_APP, "php-fpm.conf": config.replace("LEVEL", level)}
        with Server(name, words, files, signal.SIGQUIT) as s:
            s.ready()
            ask(s, "slow")
            ask(s, "hang")
            s.kill(signal.SIGKILL)
            ask(s, "segv")
            ask(s, "", 6)
            s.send(signal.SIGUSR1)
            s.send(signal.SIGUSR2, 4)


for record in (globals()[name] for name in sys.argv[1:] or ["gunicorn", "uwsgi", "unicorn", "puma", "php_fpm"]):
    record()
