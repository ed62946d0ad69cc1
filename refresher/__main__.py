from refresher.cli import main

main()
