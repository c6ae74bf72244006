module go-cron-like

go 1.21
