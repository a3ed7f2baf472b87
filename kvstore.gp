set terminal pngcairo size 1000, 700 noenhanced
set output 'kvstore.png'
set multiplot layout 2, 1
set xrange [0:4.002]
set grid
set key top right
set lmargin 12
set rmargin 4
set object 1 rectangle from first 1.0009, graph 0 to first 1.2586, graph 1 fillcolor rgb '#ffb060' fillstyle solid noborder behind
set object 2 rectangle from first 2.0013, graph 0 to first 2.2983, graph 1 fillcolor rgb '#90d090' fillstyle solid noborder behind
set title 'Throughput: node 1 drained at 1.0 s (orange), restored at 2.0 s (green)'
set ylabel 'operations/s'
set format y '%.0s%c'
set yrange [0:*]
plot 'kvstore.dat' using 1:2 with lines linewidth 2 linecolor rgb '#1f5fa8' notitle
set title 'Latency'
set ylabel 'us'
set xlabel 'seconds'
set format y '%g'
set logscale y
set yrange [*:*]
plot 'kvstore.dat' using 1:($5>0?$5:NaN) with lines linewidth 2 linecolor rgb '#b03030' title 'p99.9', 'kvstore.dat' using 1:($4>0?$4:NaN) with lines linewidth 2 linecolor rgb '#c89020' title 'p99', 'kvstore.dat' using 1:($3>0?$3:NaN) with lines linewidth 2 linecolor rgb '#1f5fa8' title 'p50'
unset multiplot
