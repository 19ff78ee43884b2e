<?php
// The FastCGI application of the tests: with ?wait it answers when the file GATE is there. The file GATE.taken tells that
// the request is in flight.
if (isset($_GET['wait'])) {
    touch(getenv('GATE') . '.taken');
    for (; !file_exists(getenv('GATE')); clearstatcache()) {
        usleep(10000);
    }
}
echo 'done';
