# One word a line, in lower case; written at once, so that the counters are never far behind.
{
    gsub(/[^A-Za-z ]/, " ")
    for (i = 1; i <= NF; i++) print tolower($i)
    fflush()
}
