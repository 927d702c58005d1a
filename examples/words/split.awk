# One word a line, in lower case.
{
    gsub(/[^A-Za-z ]/, " ")
    for (i = 1; i <= NF; i++) print tolower($i)
}
