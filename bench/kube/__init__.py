"""The benchmarks of the Kubernetes side: real daemons, an API server, BGP peers that watch."""
