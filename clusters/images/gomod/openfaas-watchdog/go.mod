module faasmesh/images/openfaas-watchdog

go 1.26.6

tool (
	github.com/openfaas/faas/auth/basic-auth
	github.com/openfaas/faas/watchdog
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.1.2 // indirect
	github.com/golang/protobuf v1.5.2 // indirect
	github.com/matttproud/golang_protobuf_extensions v1.0.1 // indirect
	github.com/openfaas/faas v0.0.0-20200422142642-18f6c720b50d // indirect
	github.com/openfaas/faas-middleware v1.0.0 // indirect
	github.com/openfaas/faas-provider v0.18.10 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/prometheus/client_golang v1.14.0 // indirect
	github.com/prometheus/client_model v0.3.0 // indirect
	github.com/prometheus/common v0.37.0 // indirect
	github.com/prometheus/procfs v0.8.0 // indirect
	golang.org/x/sys v0.0.0-20220520151302-bc2c85ada10a // indirect
	google.golang.org/protobuf v1.28.1 // indirect
)
