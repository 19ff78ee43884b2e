<?php // The PHP script of the tests, as app.py is the WSGI application.
parse_str($_SERVER['QUERY_STRING'] ?? '', $query);
if (isset($query['kill'])) {
    posix_kill(posix_getpid(), (int) $query['kill']);
    sleep(1);
}
if (isset($query['hang'])) {
    sleep(1000);
}
echo "ok\n";
