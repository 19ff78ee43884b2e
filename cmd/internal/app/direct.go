package app

import "github.com/prefork-exporter/prefork_exporter/multiproc"

// DirectFileStore returns the map of that name in the config file, for commands
// that need nothing else of it.
func DirectFileStore(configFile string) (map[string]multiproc.DirectMetric, error) {
	c, err := readConfig(configFile)
	return c.direct, err
}
